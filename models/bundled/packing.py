"""Turns chats into token rows of fixed shape: whole chats side by side, each blind to the others."""

from dataclasses import dataclass
from random import Random

import numpy as np
from tokenizers import Tokenizer

import tokenizer as vocab
from corpus import Chat, Recipe, make_chat
from vocabulary import Split

# Tokens outside the answers teach the language of the chats, but most of them cannot be foreseen.
CONTEXT_WEIGHT = 0.05
# Positions reach this far, although rows are shorter (see stretched_positions).
POSITION_MAX = 2560
NO_CHAT = -1


class ChatEncoder:
    """Encodes chats as the chat template renders them, and knows which tokens are answers."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.ids = {token: tokenizer.token_to_id(token) for token in vocab.SPECIALS}
        newline_ids = [i for text, i in tokenizer.get_vocab().items() if "Ċ" in text]
        turns = [self.ids[vocab.SYSTEM], self.ids[vocab.USER]]
        self.boundary_ids = np.array(sorted(newline_ids + turns))

    def encode(self, chat: Chat, num_tokens_max: int) -> tuple[list[int], list[tuple[int, int, int]]]:
        """Token ids of as many whole turns as fit, and (start, end, turn) of each answer.

        An answer's span includes its end mark. No turn fits: both lists are empty.
        """
        ids = [self.ids[vocab.END_OF_TEXT]]
        if chat.system is not None:
            ids += self._message("system", chat.system)
        answers: list[tuple[int, int, int]] = []
        for index, turn in enumerate(chat.turns):
            asked = self._message("user", turn.user)
            answered = self._message("assistant", turn.assistant)
            if len(ids) + len(asked) + len(answered) > num_tokens_max:
                break
            ids += asked + answered
            answers.append((len(ids) - len(answered) + 1, len(ids), index))
        return (ids, answers) if answers else ([], [])

    def _message(self, role: str, content: str) -> list[int]:
        inner = self.tokenizer.encode(content, add_special_tokens=False).ids
        return [self.ids[vocab.ROLES[role]], *inner, self.ids[vocab.END]]

    def stretched_positions(self, rng: Random, ids: list[int]) -> np.ndarray:
        """Positions with jumps at a few line and turn starts.

        A short row then shows the model the distances of a long context at the cost of a short one.
        """
        positions = np.arange(len(ids), dtype=np.int64)
        boundaries = np.flatnonzero(np.isin(ids, self.boundary_ids))
        room = POSITION_MAX - len(ids)
        if room <= 0 or len(boundaries) == 0:
            return positions
        num_jumps = rng.randint(1, 4)
        total = rng.randint(0, room)
        for _ in range(num_jumps):
            positions[rng.choice(boundaries) :] += total // num_jumps
        return positions


@dataclass
class Rows:
    """One batch; every array is [batch, len]. targets[i] is the token after tokens[i]."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    positions: np.ndarray
    chat_ids: np.ndarray  # NO_CHAT where a row is padded


def pack(
    encoder: ChatEncoder, rng: Random, recipe: Recipe, batch: int, row_len: int, stretched_share: float
) -> Rows:
    """Fills batch rows of row_len tokens with training chats of the recipe."""
    shape = (batch, row_len)
    rows = Rows(
        np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.float32),
        np.zeros(shape, np.int64), np.full(shape, NO_CHAT, np.int64),
    )  # fmt: skip
    for row in range(batch):
        filled, chat_id, misfits = 0, 0, 0
        while misfits < 4:
            chat = make_chat(rng, recipe, Split.TRAIN)
            ids, answers = encoder.encode(chat, row_len - filled)
            if not ids:
                misfits += 1
                continue
            end = filled + len(ids)
            rows.tokens[row, filled:end] = ids
            rows.targets[row, filled : end - 1] = ids[1:]
            rows.weights[row, filled : end - 1] = CONTEXT_WEIGHT
            for answer_start, answer_end, _ in answers:
                rows.weights[row, filled + answer_start - 1 : filled + answer_end - 1] = 1.0
            stretched = rng.random() < stretched_share
            rows.positions[row, filled:end] = (
                encoder.stretched_positions(rng, ids) if stretched else np.arange(len(ids))
            )
            rows.chat_ids[row, filled:end] = chat_id
            filled, chat_id = end, chat_id + 1
    return rows
