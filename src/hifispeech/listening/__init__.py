"""Listening tests: ABX (which of A and B is closer to X) and MUSHRA, from folders of outputs to statistics.

`create` makes a test folder, `server` serves its web page, `store` keeps the answers, `results` counts them.
"""
