-- Posts the lines of a file in turn, and ends with one line of figures that wrk.py reads.
local requests, at = {}, 0

function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("POST", nil, nil, line)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format("\nFIGURES %d %d %d %d %d %d %.0f %.0f\n", summary.requests, summary.duration,
    e.connect + e.read, e.write, e.status, e.timeout, latency:percentile(50), latency:percentile(99)))
end
