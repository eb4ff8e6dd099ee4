"""Image sets that evaluators read: published ones in their own layouts, and variants made on the fly."""
