"""An error in one line, as a record may hold it: the workload's programs print it so, too."""

from mnist_cnn.failure import describe_error as describe_error
