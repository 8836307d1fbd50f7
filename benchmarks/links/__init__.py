"""Owns the group `links`: datapoints over a link that is limited, with compression and without."""
