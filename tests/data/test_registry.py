from dpap.data import list_datasets


def test_every_data_set_has_a_description_and_a_homepage():
    sources = list_datasets()
    assert [source.name for source in sources] == [
        "digits",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "nmnist",
        "dvs_gesture",
    ]
    for source in sources:
        assert source.what and source.layout and source.homepage.startswith("https://")
        assert source.statistics is None or all(len(part) == source.shape[0] for part in source.statistics)
