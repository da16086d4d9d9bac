"""The sub-commands of xoauth2-bench."""
