#!/bin/sh
# Make the certificate that security.toml demands, as launcher/certificate.py does, and run the server.
set -eu
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=lab \
  -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2> /dev/null
exec weed -config_dir=/etc/seaweedfs mini -dir=/data -ip=127.0.0.1 -ip.bind=0.0.0.0 -s3.port=9000 -s3.port.iceberg=0 \
  -s3.port.lance=0 -admin.ui=false -webdav=false -master.telemetry=false -master.volumeSizeLimitMB=256
