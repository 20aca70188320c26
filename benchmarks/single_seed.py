"""IQL and TD3+BC as single-file collections write them, one seed: the other half of bench.py.

For: a loop in the manner of CORL (Tarasov et al. 2023, algorithms/offline/{iql,td3_bc}.py): a module for each
network, torch.optim.Adam as it comes, rows drawn with NumPy, a loop over parameters for slow copies, losses
read out at every step. Same networks, batch and settings as the chapter's method. Not for: learning from.
"""

import copy
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def mlp(*sizes: int, end: nn.Module | None = None) -> nn.Sequential:
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1], *([end] if end else []))


def slow_copy(net: nn.Module) -> nn.Module:
    return copy.deepcopy(net).requires_grad_(False)


def follow(target: nn.Module, net: nn.Module, rate: float) -> None:
    for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
        slow.data.copy_((1 - rate) * slow.data + rate * fast.data)


class Buffer:
    """A log, standardised once, and batches of its rows."""

    def __init__(self, dataset, batch_size: int):
        mean, std = dataset.obs.mean(0), dataset.obs.std(0, correction=0) + 1e-3
        states = ((x - mean) / std for x in (dataset.obs, dataset.next_obs))
        self.obs, self.next_obs = states
        self.action, self.batch_size = dataset.action, batch_size
        self.reward = dataset.reward.unsqueeze(-1)
        self.done = dataset.terminated.float().unsqueeze(-1)

    def sample(self):
        rows = np.random.randint(0, len(self.obs), size=self.batch_size)
        return [x[rows] for x in (self.obs, self.action, self.reward, self.next_obs, self.done)]


class IQL:
    """Implicit Q-learning; `config` is that of `offrl_nb.methods.iql`."""

    def __init__(self, dataset, config):
        self.config, self.buffer = config, Buffer(dataset, config.batch_size)
        states, actions, hidden = dataset.obs_dim, dataset.act_dim, config.hidden
        self.q = nn.ModuleList(mlp(states + actions, *hidden, 1) for _ in range(2))
        self.v = mlp(states, *hidden, 1)
        self.policy = mlp(states, *hidden, actions, end=nn.Tanh())
        self.policy.log_std = nn.Parameter(torch.zeros(actions))
        self.slow_q = slow_copy(self.q)
        nets = (self.q, self.v, self.policy)
        self.adams = [torch.optim.Adam(x.parameters(), config.learning_rate) for x in nets]
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.adams[2], config.updates)

    def step(self, loss, optimizer):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def update(self):
        obs, action, reward, next_obs, done = self.buffer.sample()
        config, both = self.config, torch.cat([obs, action], 1)
        with torch.no_grad():
            next_v = self.v(next_obs)
            q = torch.min(*(net(both) for net in self.slow_q))
        advantage = q - self.v(obs)
        weight = torch.abs(config.expectile - (advantage < 0).float())
        said = [self.step(torch.mean(weight * advantage**2), self.adams[1])]
        target = reward + (1 - done) * config.discount * next_v
        loss = sum(F.mse_loss(net(both), target) for net in self.q) / 2
        said.append(self.step(loss, self.adams[0]))
        follow(self.slow_q, self.q, config.target_rate)
        weight = torch.exp(config.inv_temp * advantage.detach()).clamp(max=config.weight_cap)
        std = torch.exp(self.policy.log_std.clamp(-20, 2))
        spread = torch.distributions.Normal(self.policy(obs), std)
        loss = torch.mean(weight.squeeze(-1) * -spread.log_prob(action).sum(-1))
        said.append(self.step(loss, self.adams[2]))
        self.schedule.step()
        return said


class TD3BC:
    """TD3+BC; `config` is that of `offrl_nb.methods.td3bc`."""

    def __init__(self, dataset, config):
        self.config, self.buffer, self.number = config, Buffer(dataset, config.batch_size), 0
        states, actions, hidden = dataset.obs_dim, dataset.act_dim, config.hidden
        self.q = [mlp(states + actions, *hidden, 1) for _ in range(2)]
        self.policy = mlp(states, *hidden, actions, end=nn.Tanh())
        self.slow_q, self.slow_policy = [slow_copy(q) for q in self.q], slow_copy(self.policy)
        nets = (*self.q, self.policy)
        self.adams = [torch.optim.Adam(x.parameters(), config.learning_rate) for x in nets]

    def update(self):
        self.number += 1
        obs, action, reward, next_obs, done = self.buffer.sample()
        config, both = self.config, torch.cat([obs, action], 1)
        with torch.no_grad():
            noise = (torch.randn_like(action) * 0.2).clamp(-0.5, 0.5)
            next_action = (self.slow_policy(next_obs) + noise).clamp(-1, 1)
            next_both = torch.cat([next_obs, next_action], 1)
            future = torch.min(*(q(next_both) for q in self.slow_q))
            target = reward + (1 - done) * config.discount * future
        loss = sum(F.mse_loss(q(both), target) for q in self.q)
        said = [loss.item()]
        for optimizer in self.adams[:2]:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.adams[:2]:
            optimizer.step()
        if self.number % 2 == 0:
            chosen = self.policy(obs)
            q = self.q[0](torch.cat([obs, chosen], 1))
            scale = config.q_weight / q.abs().mean().detach()
            loss = -scale * q.mean() + F.mse_loss(chosen, action)
            said.append(loss.item())
            self.adams[2].zero_grad()
            loss.backward()
            self.adams[2].step()
            for slow, net in zip(self.slow_q, self.q, strict=True):
                follow(slow, net, config.target_rate)
            follow(self.slow_policy, self.policy, config.target_rate)
        return said
