"""The drawn samples: small data sets in the layouts of PASCAL VOC and ADE20K, on which the sample configs train."""
