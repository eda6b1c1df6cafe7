"""Test of the dashboard in a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
SLIDER = "input[type=range]"
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def browser(tmp_path):
    if not (DRIVER and CHROMIUM):
        pytest.skip("no Chromium with its chromedriver on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    # Chromium refuses its sandbox to root.
    for flag in [*FLAGS, f"--user-data-dir={tmp_path}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    driver.set_page_load_timeout(300)
    yield driver
    driver.quit()


def _wait(driver, condition, seconds: float = 300):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, seconds).until(condition)


def _text(driver) -> str:
    return driver.execute_script("return document.body.innerText")


def test_moving_the_sliders_changes_the_answer(lab, browser):
    """With nine low sliders the answer is benign, with nine high ones malignant, and the page shows the version."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.set_window_size(1280, 1400)
    browser.get(lab.url("DASHBOARD_PORT"))
    _wait(browser, lambda d: "benign" in _text(d))
    _wait(browser, lambda d: len(d.find_elements(By.CSS_SELECTOR, SLIDER)) == 9)
    assert "Answered by version" in _text(browser)
    for place in range(9):
        # Each move draws the page anew.
        browser.find_elements(By.CSS_SELECTOR, SLIDER)[place].send_keys(Keys.END)
        _wait(
            browser,
            lambda d, place=place: d.find_elements(By.CSS_SELECTOR, SLIDER)[place].get_property("value") == "10",
        )
    _wait(browser, lambda d: "malignant" in _text(d).split("Probability")[0])
    keep(browser, "dashboard.png")
    browser.set_window_size(420, 1400)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return window.innerWidth"), "the page is wider than a phone"
    keep(browser, "dashboard-420.png")


def keep(driver, name: str) -> None:
    """Save a screenshot in the folder that the variable SCREENSHOTS names, if it is set."""
    if folder := os.environ.get("SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder) / name))
