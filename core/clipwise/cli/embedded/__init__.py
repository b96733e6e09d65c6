"""The embedded service: api, dashboard and one worker as child processes of `clipwise up`."""
