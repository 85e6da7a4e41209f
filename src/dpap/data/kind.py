"""What samples look like to a network, which the configuration of a built-in data set gives without its files."""

from dataclasses import dataclass

from dpap.data.bundle import DataBundle
from dpap.data.config import DataConfig
from dpap.data.registry import DATASETS


@dataclass(frozen=True)
class SampleKind:
    """Samples of a data set.

    Attributes:
        name: of the data set.
        input_shape: (C, H, W) of a sample, at one time where there are events.
        classes: number of classes.
        timesteps: T of events, None for images.
        class_names: of the classes in their order; none where they are called by their numbers.
    """

    name: str
    input_shape: tuple[int, int, int]
    classes: int
    timesteps: int | None
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, data: DataBundle) -> "SampleKind":
        """That of data that has been read."""
        return cls(data.name, data.input_shape, data.classes, data.timesteps, data.class_names)

    @property
    def sizes(self) -> str:
        """In words."""
        shape = "x".join(map(str, self.input_shape))
        return f"images of {shape}" if self.timesteps is None else f"events in frames of {shape}"

    def check(self, data: DataBundle) -> str | None:
        """Compare with data for the same network.

        Returns:
            A note where the data has fewer classes.

        Raises:
            ValueError: where its samples are of another kind, or its classes are more.
        """
        other = SampleKind.of(data)
        if (self.input_shape, self.timesteps is None) != (other.input_shape, other.timesteps is None):
            raise ValueError(f"the network was trained on {self.sizes}; {data.name} has {other.sizes}")
        if other.classes > self.classes:
            raise ValueError(
                f"the network has {self.classes} classes, those of {self.name}; {data.name} has {other.classes}"
            )
        if other.classes < self.classes:
            return f"{data.name} has {other.classes} of the network's {self.classes} classes"
        return None

    def name_of(self, number: int) -> str:
        """What a class is called."""
        return self.class_names[number] if number < len(self.class_names) else str(number)


def kind_of(config: DataConfig) -> SampleKind | None:
    """The samples that a configuration gives; None of a data set of the user's own, which only its code knows."""
    source = DATASETS.get(config.name)
    if source is None:
        return None
    timesteps = config.timesteps if source.events else None
    return SampleKind(source.name, source.sample_shape(config), source.classes, timesteps, source.class_names)
