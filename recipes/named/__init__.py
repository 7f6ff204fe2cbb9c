"""The recipes themselves: functions that return a full typed config."""
