"""The admin interface over HTTP: health, metrics, and the mailboxes for programs and people."""

from xoauth2_proxy.admin import aiohttp_import as aiohttp_import
