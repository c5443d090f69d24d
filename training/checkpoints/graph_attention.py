"""The graph layers of AASIST (Jung et al. 2022): attention within one graph, across two, and pooling.

Nodes are vectors [N, nodes, width]. Attention between two nodes comes from their product, so it is
symmetric but for the softmax. Parameter names are those of the published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _weight(width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(width, 1)))


def _normalised(norm: nn.BatchNorm1d, nodes: Tensor) -> Tensor:
    """Batch normalisation of every node alike, then a scaled exponential unit."""
    flat = norm(nodes.reshape(-1, nodes.shape[2]))
    return functional.selu(flat.reshape(nodes.shape))


class GraphAttention(nn.Module):
    """Attention among all nodes of one graph: [N, nodes, inputs] → [N, nodes, outputs]."""

    def __init__(self, inputs: int, outputs: int, temperature: float) -> None:
        super().__init__()
        self.att_weight = _weight(outputs)
        self.att_proj = nn.Linear(inputs, outputs)
        self.proj_with_att = nn.Linear(inputs, outputs)
        self.proj_without_att = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.temperature = temperature

    def forward(self, nodes: Tensor) -> Tensor:
        """See the class."""
        pairs = nodes[:, :, None] * nodes[:, None]
        energy = (torch.tanh(self.att_proj(pairs)) @ self.att_weight)[..., 0]
        attention = torch.softmax(energy / self.temperature, dim=2)
        return _normalised(self.bn, self.proj_with_att(attention @ nodes) + self.proj_without_att(nodes))


class HeterogeneousGraphAttention(nn.Module):
    """Attention among the nodes of two graphs, with a master node that gathers from both.

    Weights differ for pairs within the first graph, within the second, and across.
    """

    def __init__(self, inputs: int, outputs: int, temperature: float) -> None:
        super().__init__()
        self.proj_type1, self.proj_type2 = nn.Linear(inputs, inputs), nn.Linear(inputs, inputs)
        self.att_proj, self.att_projM = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.att_weight11, self.att_weight22 = _weight(outputs), _weight(outputs)
        self.att_weight12, self.att_weightM = _weight(outputs), _weight(outputs)
        self.proj_with_att, self.proj_without_att = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.proj_with_attM, self.proj_without_attM = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor, master: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes of both graphs and the master [N, 1, inputs] → the same three, ``outputs`` wide."""
        count = first.shape[1]
        nodes = torch.cat([self.proj_type1(first), self.proj_type2(second)], dim=1)
        attention = torch.softmax(self._energy(nodes, count) / self.temperature, dim=2)
        gathered = self._gathered(nodes, master)
        joined = self.proj_with_att(attention @ nodes) + self.proj_without_att(nodes)
        joined = _normalised(self.bn, joined)
        return joined[:, :count], joined[:, count:], gathered

    def _energy(self, nodes: Tensor, count: int) -> Tensor:
        pairs = torch.tanh(self.att_proj(nodes[:, :, None] * nodes[:, None]))
        upper = torch.cat(
            [pairs[:, :count, :count] @ self.att_weight11, pairs[:, :count, count:] @ self.att_weight12], dim=2
        )
        lower = torch.cat(
            [pairs[:, count:, :count] @ self.att_weight12, pairs[:, count:, count:] @ self.att_weight22], dim=2
        )
        return torch.cat([upper, lower], dim=1)[..., 0]

    def _gathered(self, nodes: Tensor, master: Tensor) -> Tensor:
        energy = (torch.tanh(self.att_projM(nodes * master)) @ self.att_weightM)[..., 0]
        attention = torch.softmax(energy / self.temperature, dim=1)[:, None]
        return torch.as_tensor(self.proj_with_attM(attention @ nodes) + self.proj_without_attM(master))


class GraphPool(nn.Module):
    """Keeps the share of the nodes that score highest, weighted by their scores."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 1)
        self.share = share

    def forward(self, nodes: Tensor) -> Tensor:
        """[N, nodes, width] → [N, max(1, ⌊share × nodes⌋), width], best first."""
        scores = torch.sigmoid(self.proj(nodes))
        keep = max(int(nodes.shape[1] * self.share), 1)
        best = torch.topk(scores[..., 0], keep, dim=1).indices[..., None]
        return torch.gather(nodes * scores, 1, best.expand(-1, -1, nodes.shape[2]))
