from netcut_fx.tracing import *  # temporary
from netcut_fx.tracing import propagate_specs, module_path, operation_name, retrace, tensor_spec, trace
