"""The servers of faas-mesh: one package per process.

Modules beside the packages are shared by two of them or more. Packages meet over
gRPC or the queue only; none imports a sibling.
"""
