"""`python -m clipwise_api`: serve the api and the dashboard."""

if __name__ == "__main__":
    # Imported here, because processes that are spawned for plans read this file too.
    from clipwise_api.server import main

    main()
