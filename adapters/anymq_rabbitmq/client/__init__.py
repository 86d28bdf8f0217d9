"""The code below the client libraries: all use of private parts of aio-pika, aiormq and pamqp."""
