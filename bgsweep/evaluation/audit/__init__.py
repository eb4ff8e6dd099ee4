"""The measures of `bgsweep audit`: reliance of an encoder on backgrounds and other shortcuts."""
