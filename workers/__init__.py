"""The Celery processes: `celery -A workers worker|beat|flower`. They decide nothing; the flow does.

celery        the app, found by `-A workers`
tasks         the one task, three lines
lifecycle     what a worker process does before its first message and after its last
drain         how a worker ends while its nodes still run
telling       what Flower hears of nodes that had no message of their own
schedule      beat: the healer
flowerconfig  Flower
"""
