"""The page Predict: a field for each feature, the answer, and the version of the model."""

from typing import Any

import streamlit as st

from dashboard import client
from lab.errors import LabError
from lab.record import Value


def field(feature: dict[str, Any]) -> Value | None:
    """A field for a valid value; None when a nullable feature is marked as missing."""
    label, low, high = feature["label"].capitalize(), feature["min"], feature["max"]
    missing = feature["nullable"] and st.checkbox(f"{label} is missing", key=f"{feature['name']} missing")
    value: Value
    if feature["type"] == "category":
        value = st.selectbox(label, feature["levels"], key=feature["name"], disabled=bool(missing))
    elif feature["type"] == "boolean":
        value = st.toggle(label, key=feature["name"], disabled=bool(missing))
    elif feature["type"] == "integer":
        value = st.slider(label, int(low), int(high), int(low), key=feature["name"], disabled=bool(missing))
    else:
        step = (high - low) / 1000
        value = st.slider(label, low, high, low, step=step, key=feature["name"], disabled=bool(missing))
    return None if missing else value


def show(card: dict[str, Any], version: int, record: dict[str, Value | None]) -> None:
    """Ask the API and show its answer."""
    answer = client.predict(record)
    positive = answer["label"] == card["classes"]["positive"]
    (st.error if positive else st.success)(
        f"**{answer['label']}**", icon=":material/warning:" if positive else ":material/check_circle:"
    )
    left, middle, right = st.columns(3)
    left.metric(f"Probability of {card['classes']['positive']}", f"{answer['probability']:.1%}")
    middle.metric("Decision threshold", f"{answer['threshold']:.1%}")
    right.metric("Answered by version", answer["model"]["version"])
    st.progress(min(max(answer["probability"], 0.0), 1.0))
    lineage, recipe = card["lineage"], card["recipe"]
    st.caption(
        f"{card['problem']} version {version}: {recipe['candidate']}, ROC AUC "
        f"{card['metrics']['roc_auc']['mean']:.4f} ± {card['metrics']['roc_auc']['sd']:.4f} out of fold. "
        f"Data {lineage['data_md5'][:8]}, commit {lineage['git_commit'][:8]}"
        f"{' with uncommitted changes' if lineage['git_dirty'] else ''}."
    )


try:
    served = client.model()
    st.title(served["card"]["title"])
    result = st.container()
    columns = st.columns(2)
    record = {}
    for place, each in enumerate(served["card"]["features"]):
        with columns[place % 2]:
            record[each["name"]] = field(each)
    with result:
        show(served["card"], served["version"], record)
except LabError as error:
    st.title("Effective MLOps lab")
    st.warning(f"The API gives no prediction. {error.message}", icon=":material/hourglass_top:")
    st.caption("`make status` shows what runs; this page tries again when you reload it.")
