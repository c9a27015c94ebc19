"""The project's site: chapters, documents and API reference as web pages that need no network."""
