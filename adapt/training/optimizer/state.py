"""The state of any torch optimizer as tensors and JSON, and back to the same bits; no pickles.

Most state is a few tensors a parameter. What is not (counters, Prodigy's estimate in the parameter groups, lists of factors) is
packed into JSON, and tensors inside it are put beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Named = Mapping[str, nn.Parameter]


@dataclass(frozen=True)
class OptimizerState:
    """Attributes:
    tensors: by `parameter/key`, and by `parameter/key/number` for those inside of `rest`.
    rest: as JSON: `state`, what is no tensor, by parameter and key; `groups`, what the optimizer itself keeps in its groups.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)


def optimizer_state(optimizer: Optimizer, parameters: Named) -> OptimizerState:
    """Everything that the next step depends on, but the settings.

    Raises:
        TypeError: state that is neither tensor nor JSON.
    """
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, Any]] = {}
    for name, parameter in parameters.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}/{key}"] = value.detach().clone()
            else:
                rest.setdefault(name, {})[key] = _packed(value, f"{name}/{key}", tensors)
    groups = [_own(optimizer, number, tensors) for number in range(len(optimizer.param_groups))]
    return OptimizerState(tensors, {"state": rest, "groups": groups})


def _own(optimizer: Optimizer, number: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What the steps have changed in a group: settings stay with the settings, and the learning rate with the schedule."""
    group, given = optimizer.param_groups[number], optimizer.defaults
    changed = {k: v for k, v in group.items() if k not in ("params", "lr") and not (k in given and v is given[k])}
    packed = {k: _packed(v, f"group {number}/{k}", tensors) for k, v in sorted(changed.items())}
    return {k: v for k, v in packed.items() if k not in given or v != _packed(given[k], "", {})}


def restore_optimizer(optimizer: Optimizer, parameters: Named, state: OptimizerState) -> None:
    """The reverse of `optimizer_state`, in an optimizer that was just made. torch's own `load_state_dict` would turn every
    tensor into the parameter's kind of number, also one of whole numbers."""
    beside = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for path, value in state.tensors.items():
        name, _, key = path.partition("/")
        if "/" not in key:
            optimizer.state[parameters[name]][key] = _placed(key, value, parameters[name], beside)
    for name, entries in state.rest.get("state", {}).items():
        for key, packed in entries.items():
            optimizer.state[parameters[name]][key] = _unpacked(packed, state.tensors, parameters[name])
    for group, packed in zip(optimizer.param_groups, state.rest.get("groups", []), strict=False):
        group.update({key: _unpacked(value, state.tensors, group["params"][0]) for key, value in packed.items()})


def _placed(key: str, value: Tensor, parameter: nn.Parameter, beside: bool) -> Tensor:
    """A copy on the parameter's device; torch's step counters stay on the CPU, except in fused optimizers."""
    return value.clone() if key == "step" and not beside else value.to(parameter.device, copy=True)


def _packed(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """JSON of a value; tensors inside are put into `tensors`."""
    if isinstance(value, Tensor):
        place = f"{path}/{len(tensors)}"
        tensors[place] = value.detach().clone()
        return {"tensor": place}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_packed(item, path, tensors) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _packed(item, path, tensors)] for key, item in value.items()]}
    raise TypeError(f"{path} holds a {type(value).__name__}, which is neither tensor nor JSON")


def _unpacked(value: Any, tensors: Mapping[str, Tensor], parameter: nn.Parameter) -> Any:
    if isinstance(value, list):
        return [_unpacked(item, tensors, parameter) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "tensor":
        return tensors[content].to(parameter.device, copy=True)
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple(_unpacked(item, tensors, parameter) for item in content)
    return {key: _unpacked(item, tensors, parameter) for key, item in content}
