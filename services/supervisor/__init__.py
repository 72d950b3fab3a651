"""`faas up`: the whole mesh as child processes of one supervisor.

It starts the other parts as processes and talks to none of them but for health;
it imports none of their code.
"""
