"""The entry point of the dashboard, with the list of its pages."""

from pathlib import Path

import streamlit as st

st.set_page_config(page_title="Effective MLOps lab", page_icon=":material/biotech:", layout="centered")
pages = Path(__file__).parent
st.navigation([st.Page(pages / "predict.py", title="Predict", icon=":material/tune:", default=True)]).run()
