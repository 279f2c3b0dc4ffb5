"""People compare samples: the web app, its store, workforces, agreement."""
