"""aiokafka: the only package that imports it or touches its private parts."""
