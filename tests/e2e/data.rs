//! Data that would be taken for something else are refused before anything is stored, and what is taken is shown.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ergodic_tests::{Cluster, SmallDisk, run, skip};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A dataset file of `[image, …]` with labels from `first` on.
fn dataset(path: &Path, shape: &[usize], first: u8) {
    let images = shape[0];
    let numbers: Vec<u8> = (0..shape.iter().product::<usize>())
        .map(|at| (at * 31 % 251) as u8)
        .collect();
    let labels: Vec<u8> = (0..images).map(|at| first + (at % 3) as u8).collect();
    let view = |shape: &[usize], bytes: &'static [u8]| {
        TensorView::new(Dtype::U8, shape.to_vec(), bytes).expect("fits")
    };

    let (numbers, labels): (&'static [u8], &'static [u8]) = (numbers.leak(), labels.leak());
    let tensors = [
        ("x_train", view(shape, numbers)),
        ("y_train", view(&[images], labels)),
        ("x_test", view(shape, numbers)),
        ("y_test", view(&[images], labels)),
    ];
    std::fs::write(path, serialize(tensors, None).expect("small")).expect("written");
}

fn sweep(data: &str) -> String {
    format!(
        "name = \"t\"\nrepeats = 1\n[data]\n{data}\n[model]\nkind = \"mlp\"\nhidden = [4]\n[train]\nlr = 0.1\nsteps = 1\nbatch_size = 2\n\
         [measure]\nmetrics = [\"train_loss\"]\n"
    )
}

#[test]
fn data_that_would_be_misread_are_refused_by_plan_run_and_launch() {
    let cluster = Cluster::start(&[]);
    let text = |path: &Path| path.to_string_lossy().into_owned();

    for (name, shape, first, words) in [
        (
            "channels",
            &[6, 3, 8, 8][..],
            0,
            "looks like channels first",
        ),
        ("labels", &[6, 8, 8, 1], 1, "expected labels from 0"),
    ] {
        dataset(&cluster.path(&format!("{name}.safetensors")), shape, first);
        let file = cluster.path(&format!("{name}.toml"));
        std::fs::write(&file, sweep(&format!("dataset = \"{name}.safetensors\"")))
            .expect("written");
        let runs = text(&cluster.path("runs"));
        let tries = [
            run(&["plan", &text(&file)]),
            run(&["run", &text(&file), "--dir", &runs]),
            cluster.run(&["launch", &text(&file)]),
        ];
        for tried in tries {
            assert!(
                tried.code == 2 && tried.stderr.contains(words),
                "{name}: {tried:?}"
            );
        }

        assert!(!cluster.path("runs").exists(), "nothing is left behind");
    }

    assert_eq!(
        cluster.ask(&["list", "--format", "csv"]).lines().count(),
        1,
        "nothing is stored"
    );
}

#[test]
fn a_dataset_that_is_smaller_than_asked_for_is_refused_with_what_is_there() {
    let cluster = Cluster::start(&[]);
    let dir = cluster.path("data/mnist");
    std::fs::create_dir_all(&dir).expect("made");
    let idx = |magic: u32, sizes: &[u32], content: Vec<u8>| {
        let words = std::iter::once(&magic).chain(sizes);
        words
            .flat_map(|word| word.to_be_bytes())
            .chain(content)
            .collect::<Vec<u8>>()
    };

    for (prefix, n) in [("train", 30_u32), ("t10k", 20)] {
        let pixels = (0..n * 784).map(|at| (at % 251) as u8).collect();
        let labels = (0..n).map(|at| (at % 10) as u8).collect();
        let write = |kind: &str, bytes: Vec<u8>| {
            std::fs::write(dir.join(format!("{prefix}-{kind}")), bytes).expect("written")
        };
        write("images-idx3-ubyte", idx(0x803, &[n, 28, 28], pixels));

        write("labels-idx1-ubyte", idx(0x801, &[n], labels));
    }

    let file = cluster.path("small.toml");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let file_text = text(&file);
    let data = text(&cluster.path("data"));
    std::fs::write(&file, sweep("dataset = \"mnist\"\ntest = 20")).expect("written");

    for command in [
        &["plan", &file_text, "--data-dir", &data][..],
        &["run", &file_text, "--data-dir", &data],
    ] {
        let tried = run(command);
        let words = "data.train: mnist has 30 training images here, not 60000: set data.train = 30, or fewer";
        assert!(tried.code == 2 && tried.stderr.contains(words), "{tried:?}");
    }

    std::fs::write(&file, sweep("dataset = \"mnist\"\ntrain = 20\ntest = 20")).expect("written");
    let planned = run(&["plan", &file_text, "--data-dir", &data]).stdout;
    let line = "mnist: 20 of the first 30 of 60000 training images, the first 20 of 10000 test images \
                (whatever their classes), class-balanced by seed 0";
    assert!(
        planned.contains(line) && planned.contains("10 classes of 2 training images each"),
        "{planned}"
    );

    let nowhere = run(&["plan", &file_text]);
    assert!(
        nowhere.code == 2 && nowhere.stderr.contains("mnist needs files"),
        "{nowhere:?}"
    );
    let unseen = run(&["plan", &file_text, "--coordinator", "http://a:1"]).stdout;
    assert!(
        unseen.contains("not checked: the coordinator at http://a:1 reads its own"),
        "{unseen}"
    );
}

#[test]
fn plan_and_launch_show_what_data_look_like() {
    let cluster = Cluster::start(&[]);
    let file = cluster.path("glyphs.toml");
    std::fs::write(&file, sweep("train = 100\ntest = 50")).expect("written");
    let file = file.to_string_lossy().into_owned();
    let line = "data: glyphs: 100 of 10000 training images, 50 of 2000 test images, class-balanced by seed 0";
    let looks = "28×28×1 (height × width × channels), bytes 0 … 255, standardized per channel; 10 classes of 10 training images each";

    let planned = run(&["plan", &file]).stdout;
    let launched = cluster.run(&["launch", &file]);
    assert!(
        planned.contains(line) && planned.contains(looks),
        "{planned}"
    );

    assert!(
        launched.stderr.contains(line) && launched.stderr.contains(looks),
        "{launched:?}"
    );
    assert_eq!(
        launched.stdout.trim().len(),
        8,
        "stdout is the id alone: {launched:?}"
    );

    let ran = run(&[
        "run",
        &file,
        "--dir",
        &cluster.path("runs").to_string_lossy(),
    ]);
    assert!(
        ran.code == 0 && ran.stderr.contains(line) && ran.stderr.contains(looks),
        "{ran:?}"
    );
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("a file").ino()
}

/// The dataset in the folder of a run.
fn stored_dataset(run: &Path) -> PathBuf {
    let entries = std::fs::read_dir(run.join("data")).expect("a run has files");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.file_name().is_some_and(|name| name.len() == 64))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

#[test]
fn runs_share_their_dataset_and_each_folder_is_whole_without_the_cache() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| dir.path().join(name);
    let text = |name: &str| path(name).to_string_lossy().into_owned();
    let file = text("sweep.toml");
    std::fs::write(&file, sweep("train = 100\ntest = 50")).expect("written");
    let cache = text("cache");
    let run_in = |store: &str, more: &[&str]| {
        let args = ["run", &file, "--store", store, "--cache-dir", &cache];
        let ran = run(&[&args, more].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.stdout
    };

    let printed = run_in(&text("a"), &[]);
    run_in(&text("b"), &[]);
    let first = stored_dataset(&path("a"));
    let second = stored_dataset(&path("b"));
    let cached = path("cache").join(first.file_name().expect("a name"));
    assert_eq!(inode(&first), inode(&second));
    assert_eq!(inode(&first), inode(&cached));

    // A copy elsewhere, without the cache and the other run, has all it needs.
    copy_folder(&path("a"), &path("copy"));
    std::fs::remove_dir_all(path("a")).expect("removed");
    std::fs::remove_dir_all(&cache).expect("removed");
    let content = std::fs::read(stored_dataset(&path("copy"))).expect("a file");
    assert_eq!(blake3::hash(&content).to_string(), {
        let name = second.file_name().expect("a name");
        name.to_string_lossy().into_owned()
    });
    // The same numbers, below a line that names the sweep.
    let rows = |table: &str| table.lines().skip(1).collect::<Vec<_>>().join("\n");
    let again = run_in(&text("copy"), &["--again"]);
    assert_eq!(rows(&again), rows(&printed));

    // Where there can be no cache, a run has a file of its own.
    std::fs::write(&cache, "").expect("written");
    run_in(&text("alone"), &[]);
    let alone = stored_dataset(&path("alone"));
    assert_eq!(std::fs::metadata(&alone).expect("a file").nlink(), 1);
}

#[test]
fn a_run_on_another_file_system_than_the_cache_copies_its_dataset() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 64) else {
        return skip(
            "a_run_on_another_file_system_than_the_cache_copies_its_dataset",
            "tmpfs",
            "mounting one needs root",
        );
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let file = text(&dir.path().join("sweep.toml"));
    std::fs::write(&file, sweep("train = 100\ntest = 50")).expect("written");
    let cache = text(&dir.path().join("cache"));

    let stores = [dir.path().join("a"), disk.path().join("b")];
    for store in &stores {
        let ran = run(&["run", &file, "--store", &text(store), "--cache-dir", &cache]);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    let [linked, copied] = stores.map(|store| stored_dataset(&store));
    let links = |path: &Path| std::fs::metadata(path).expect("a file").nlink();
    assert_eq!((links(&linked), links(&copied)), (2, 1));
    assert_eq!(
        std::fs::read(linked).expect("a file"),
        std::fs::read(copied).expect("a file")
    );
}
