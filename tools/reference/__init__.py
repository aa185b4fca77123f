"""docs/cli-reference.md, written from the declarations of the verbs."""
