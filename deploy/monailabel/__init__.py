"""The MONAI Label app: this folder is what `monailabel start_server --app` takes."""
