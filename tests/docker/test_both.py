"""These tests of the lab of processes do not depend on processes, so that they also run on containers."""

# ruff: noqa: F401

from tests.browser.test_dashboard import browser, test_moving_the_sliders_changes_the_answer
from tests.lab.page import page
from tests.lab.test_hosts import (
    test_a_foreign_host_is_refused,
    test_a_foreign_origin_changes_nothing_in_mlflow,
    test_a_foreign_page_does_not_open_the_dashboards_websocket,
    test_a_page_cannot_use_mlflow,
)
from tests.lab.test_lab import (
    test_a_lock_file_that_dvc_left_empty_is_made_again,
    test_dvc_pull_gives_the_bytes_back,
    test_every_wrong_field_is_named,
    test_the_card_says_where_the_model_comes_from,
    test_the_champion_answers,
    test_the_dashboard_is_there,
    test_the_runs_are_in_mlflow,
    test_the_same_again_registers_nothing,
    test_up_ends_with_the_table,
    test_up_leaves_the_work_tree_as_it_was,
)
from tests.lab.test_load import test_without_an_api_it_says_what_to_do
from tests.lab.test_pipeline import test_a_stage_that_fails_stops_the_pipeline
from tests.lab.test_store import test_a_lost_store_is_noticed
