"""The MONAI Label app: the folder for `monailabel start_server --app`."""
