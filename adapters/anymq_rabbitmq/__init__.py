"""The RabbitMQ backend of anymq."""
