"""The loops of each kernel as TVM IR; only these modules and `codegen.objects` import TVM."""
