"""Code that talks to a Ray cluster: sessions, resources, jobs, and workers for training, views and evaluation."""
