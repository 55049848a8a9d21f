"""Critics: they look at frames of an edit and answer each attribute's question. They steer, and never grade."""

from countervid.critics.base import Answer, Critic, Request, Verdict, load_critic

__all__ = ["Answer", "Critic", "Request", "Verdict", "load_critic"]
