"""A sweep's results as one page for people who were not there: plain values in, HTML out."""
