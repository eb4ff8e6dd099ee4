"""The report: a sweep's results as one HTML page, and the images and files of MLflow runs."""
