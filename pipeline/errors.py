"""The exception tree: one base per way a caller would recover.

HepatagError
├── ConfigError    the config file or an override is wrong: edit it
├── InputError     an input file cannot be used: mend or leave out the file
├── LabelError     a label set breaks the scheme: mend the record
├── ModelError     a model folder or name cannot be used: choose another
├── OutputError    results cannot be written: choose or free the place
├── NetworkError   a server gives no usable answer: check the network, try later
├── TrackingError  the MLflow store cannot be used: choose another, or none
└── Interrupted    stopped on request; the message says how to go on
    └── Pruned     a trial of a sweep that was given up

Every message is one sentence or two: what was expected, what was found, what to do.
"""


class HepatagError(Exception):
    """Base of all errors that a user can mend; the command line prints the message and exits with code 2."""


class ConfigError(HepatagError):
    """A config file or an override on the command line is wrong."""


class InputError(HepatagError):
    """An input file cannot be read as what it claims to be."""


class LabelError(HepatagError):
    """A label set does not follow the label scheme."""


class ModelError(HepatagError):
    """A model folder or a model name cannot be used."""


class OutputError(HepatagError):
    """Results cannot be written to the place asked for."""


class NetworkError(HepatagError):
    """A server cannot be reached, or gives no usable answer."""


class TrackingError(HepatagError):
    """The MLflow store cannot be used."""


class Interrupted(HepatagError):
    """The work was stopped by Ctrl-C or SIGTERM and can be resumed."""


class Pruned(Interrupted):
    """A trial of a sweep was given up, since it fell behind the others."""
