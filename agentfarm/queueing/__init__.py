"""The queue: where messages go and how they get there. With workers/, the only place that knows Celery and kombu.

names         which queues there are, and how the broker names them
broker        the Celery app's settings for RabbitMQ, for Redis or Valkey and for SQS, and `declare_all`
publisher     flow/ports.Publisher: the message of one Celery task, without Celery's machinery for making it
consumer      tells Flower of tasks a few times a second (Redis), or nobody of anything (SQS)
lease_keeper  keeps a message away from others while its node runs (Redis and SQS know a time limit only)
kombu_redis   one Redis client a channel instead of one a command
sqs           what SQS is asked for, and what it cannot do, said at start
kombu_sqs     kombu's SQS transport, without what would end a worker or leave it deaf
"""
