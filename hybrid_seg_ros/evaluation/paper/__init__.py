"""`hybrid_seg paper`: the paper's tables and figures, of any model on any data set, on the device at hand."""
