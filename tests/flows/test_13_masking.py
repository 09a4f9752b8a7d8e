"""Credentials never reach a message."""

from __future__ import annotations

import pytest

from bperp.flows.masking import mask_secrets

TOKEN = "fake-token-9f8e7d"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{TOKEN}@host/x.zip failed",
        f"s3://{TOKEN}@bucket/x",
        f"GET /x?token={TOKEN}&a=1",
        f"Authorization: Bearer {TOKEN}",
        f'{{"password": "{TOKEN}", "a": 1}}',
        f"AWS_SECRET_ACCESS_KEY={TOKEN}",
        f"api_key='{TOKEN}'",
        f"https://bucket/x?X-Amz-Signature={TOKEN}",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    masked = mask_secrets(text, {})
    assert TOKEN not in masked
    assert "***" in masked


def test_values_of_secret_variables_are_masked_wherever_they_appear() -> None:
    environment = {"EARTHDATA_TOKEN": TOKEN, "HOME": "/home/x", "SHORT_TOKEN": "a"}
    assert mask_secrets(f"odd place {TOKEN}! a", environment) == "odd place ***! a"


@pytest.mark.parametrize(
    "text", ["S1A_IW_SLC__1SDV_20150402T155633", "https://host/path?x=1", "user@example.org", ""]
)
def test_other_text_is_left_alone(text: str) -> None:
    assert mask_secrets(text, {}) == text
