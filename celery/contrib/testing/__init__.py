"""Parts for the tests of users' projects: an app, a worker in a thread, messages."""
