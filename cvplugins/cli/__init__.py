"""The console command ``cvplugins``: one file a subcommand."""
