"""FunctionService: functions, their immutable versions, and their code."""
