"""What a store did not take, kept on this machine until `hepatag sync` sends it.

A run's journal is a folder named after the run: ``run.json`` says which run of which store it is, ``journal.jsonl``
holds one entry a line in the order of time, ``files/`` copies of the files that entries speak of.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import TrackingError
from pipeline.files import replacing

Entry = Mapping[str, Any]
"""One thing to record: its ``kind``, what to say, and perhaps a ``path`` of a file or folder."""


@dataclass(frozen=True)
class Journal:
    """The journal of one run; ``folder`` need not exist before something is kept."""

    folder: Path
    run_id: str
    run_name: str = ""
    store: str = ""
    """URI of the store, without passwords."""

    @classmethod
    def open(cls, folder: Path) -> Journal:
        """An existing journal.

        Args:
            folder: the journal's folder.

        Returns:
            The journal.

        Raises:
            TrackingError: ``run.json`` is missing or damaged.
        """
        try:
            about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            return cls(folder, str(about["run_id"]), str(about["run_name"]), str(about["store"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise TrackingError(
                f"Expected a run's journal in {folder}, found its run.json missing or damaged "
                f"({type(error).__name__}); restore it or remove the folder."
            ) from error

    def keep(self, entry: Entry) -> None:
        """Append an entry, with a copy of the file or folder that it names.

        Args:
            entry: what was to be recorded.

        Raises:
            OSError: the journal cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._held():
            about = self.folder / "run.json"
            if not about.exists():
                with replacing(about) as partial:
                    text = json.dumps({"run_id": self.run_id, "run_name": self.run_name, "store": self.store})
                    partial.write_text(text + "\n", encoding="utf-8")
            if "path" in entry:
                entry = {**entry, "path": self._copy(Path(entry["path"]))}
            with self._lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    @contextmanager
    def taking(self) -> Iterator[tuple[list[Entry], list[Entry]]]:
        """Take the entries out to send them; nobody else writes meanwhile.

        Yields:
            tuple[list[Entry], list[Entry]]: all entries, paths made absolute; and an empty list for those that stay.
                Where the block fails, all stay. Where none is to stay, the journal is removed.

        Raises:
            TrackingError: a line is damaged.
        """
        with self._held():
            entries = self._entries()
            left: list[Entry] = []
            yield entries, left
            if left:
                with replacing(self._lines) as partial:
                    lines = (json.dumps(self._relative(one), ensure_ascii=False) + "\n" for one in left)
                    partial.write_text("".join(lines), encoding="utf-8")
            else:
                shutil.rmtree(self.folder, ignore_errors=True)
        if not left:
            self._lock.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._entries())

    @property
    def _lines(self) -> Path:
        return self.folder / "journal.jsonl"

    def _entries(self) -> list[Entry]:
        if not self._lines.is_file():
            return []
        lines = self._lines.read_text(encoding="utf-8").splitlines()
        entries = []
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
            except ValueError:
                if number == len(lines):  # the process was killed while it wrote this line
                    break
                raise TrackingError(
                    f"Expected JSON in {self._lines}, line {number}; mend or remove that line."
                ) from None
            entries.append({**entry, "path": str(self.folder / entry["path"])} if "path" in entry else entry)
        return entries

    def _relative(self, entry: Entry) -> Entry:
        if "path" not in entry:
            return entry
        return {**entry, "path": Path(entry["path"]).relative_to(self.folder).as_posix()}

    def _copy(self, source: Path) -> str:
        """Copy a file or folder under its own name; returns its path below the journal."""
        files = self.folder / "files"
        files.mkdir(exist_ok=True)
        place = files / f"{len(list(files.iterdir())):05d}"
        place.mkdir()
        copy = place / source.name
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
        return copy.relative_to(self.folder).as_posix()

    @contextmanager
    def _held(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self._lock, timeout=120):
            yield

    @property
    def _lock(self) -> Path:
        return self.folder.with_name(self.folder.name + ".lock")


def journals(root: Path) -> Sequence[Journal]:
    """All journals below a folder, by run id."""
    return [Journal.open(path) for path in sorted(root.glob("*")) if path.is_dir()] if root.is_dir() else []
