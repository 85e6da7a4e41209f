import pytest
import torch

from dpap.data import DataConfig, load_data


@pytest.fixture
def root(tmp_path, formats):
    """Two training recordings and a test one, each with three trials and events before and after."""
    folder = tmp_path / "DvsGesture"
    folder.mkdir()
    for number, name in enumerate(["user01_led", "user02_lab", "user24_led"]):
        events = formats.random_events(number, 900, 128, 50_000)
        half = len(events) // 2
        packets = [(1, 0, [(event, True) for event in part]) for part in (events[:half], events[half:])]
        (folder / f"{name}.aedat").write_bytes(formats.aedat_bytes(packets))
        rows = "1,10000,20000\n11,20000,33333\n8,40000,45000\n"
        (folder / f"{name}_labels.csv").write_text(f"class,startTime_usec,endTime_usec\n{rows}")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\r\nuser02_lab.aedat\n\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    return folder


def load(root, **options):
    config = DataConfig(
        name="dvs_gesture",
        root=str(root.parent),
        cache=str(root.parent / "cache"),
        **{"timesteps": 5, **options},
    )
    return load_data(config)


@pytest.mark.parametrize("part", [1 << 16, 100])
def test_trials_equal_a_slow_decoder(root, formats, monkeypatch, part):
    monkeypatch.setattr("dpap.data.aedat.PART", part)
    bundle = load(root)
    assert (bundle.input_shape, bundle.classes, len(bundle.train), len(bundle.test)) == (
        (2, 32, 32),
        11,
        6,
        3,
    )
    x, y = next(bundle.train.batches(6))
    assert y.tolist() == [0, 10, 7] * 2 and x.shape == (5, 6, 2, 32, 32)
    for number in range(2):
        events = formats.random_events(number, 900, 128, 50_000)
        for trial, (begin, end) in enumerate([(10_000, 20_000), (20_000, 33_333), (40_000, 45_000)]):
            inside = [event for event in events if begin <= event[3] < end]
            expected = torch.from_numpy(formats.slow_frames(inside, 5, 128, begin, end, 4))
            assert torch.equal(x[:, 3 * number + trial].long(), expected)


def test_downsample_is_configured(root):
    assert load(root, downsample=2).input_shape == (2, 64, 64)
    with pytest.raises(ValueError, match="downsample must divide"):
        load(root, downsample=3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "must start with the line class,startTime_usec,endTime_usec"),
        ("a,b,c\n1,2,3\n", "must start with the line"),
        ("class,startTime_usec,endTime_usec\n12,0,5\n", "classes from 1 to 11"),
        ("class,startTime_usec,endTime_usec\n0,0,5\n", "classes from 1 to 11"),
        ("class,startTime_usec,endTime_usec\n1,5,5\n", "end after they start"),
        ("class,startTime_usec,endTime_usec\n1,5\n", "three whole numbers"),
        ("class,startTime_usec,endTime_usec\n1,5,x\n", "three whole numbers"),
        ("class,startTime_usec,endTime_usec\n1,-5,5\n", "both from 0 to 281474976710656 microseconds"),
        (f"class,startTime_usec,endTime_usec\n1,5,{10**30}\n", "both from 0 to"),
        ("class,startTime_usec,endTime_usec\n" + "1,0,9\n" * 257, "at most 256 trials; got 257"),
        ("class,startTime_usec,endTime_usec\n" + "1,0,9\n" * 20_000, "a text of at most 65536 bytes"),
        ("class,startTime_usec,endTime_usec\n1,\0,9\n", "three whole numbers|is no CSV file"),
    ],
)
def test_wrong_labels_are_named(root, labels, message):
    (root / "user02_lab_labels.csv").write_text(labels)
    with pytest.raises(ValueError, match=message) as caught:
        load(root)
    assert "user02_lab_labels.csv" in str(caught.value)


def test_labels_of_another_recording(root):
    (root / "user24_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,900000,900001\n")
    with pytest.raises(ValueError, match=r"user24_led\.aedat has no event in any trial"):
        load(root)


def test_missing_files_are_named(root):
    (root / "user02_lab_labels.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"user02_lab_labels\.csv is missing"):
        load(root)
    (root / "user01_led.aedat").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"user01_led\.aedat, listed in trials_to_train.txt, is missing"
    ):
        load(root)
    (root / "trials_to_test.txt").write_text("")
    (root / "trials_to_train.txt").write_text("")
    with pytest.raises(ValueError, match="must list recordings with trials; got none"):
        load(root)


def test_events_outside_of_the_sensor(root, formats):
    (root / "user01_led.aedat").write_bytes(formats.aedat_bytes([(1, 0, [((128, 0, 0, 15000), True)])]))
    with pytest.raises(ValueError, match="x and y below 128; got x up to 128"):
        load(root)
