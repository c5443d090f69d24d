"""Generated from protos/third_party/buf: the rules that our contract's options are written in."""
