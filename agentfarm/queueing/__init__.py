"""The queue: where messages go and how they get there. With workers/, the only place that knows Celery and kombu.

names         which queues there are, and how the broker names them
broker        the Celery app's settings for RabbitMQ and for Redis or Valkey, and `declare_all`
publisher     flow/ports.Publisher: the message of one Celery task, without Celery's machinery for making it
consumer      tells Flower of tasks a few times a second
lease_keeper  keeps a message away from others while its node runs (Redis has no such notion)
kombu_redis   one Redis client a channel instead of one a command
"""
