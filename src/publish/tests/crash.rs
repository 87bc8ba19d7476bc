//! Cut off after every single change of the disk, the work begins anew and ends where it should.

use super::*;

/// What a step of the loop does for one group.
fn publish(bench: &Bench, files: &[RenderedFile]) -> Result<PublicationId, PublishError> {
    let id = bench.publisher.write(&bench.web, files, None, false)?;
    bench.publisher.switch(&bench.web, id, &bench.mount())?;
    bench.publisher.prune(&bench.web, 1, &[])?;
    Ok(id)
}

fn publish_all(bench: &Bench, before: &[Vec<RenderedFile>]) {
    for files in before {
        publish(bench, files).unwrap();
    }
}

/// How many changes a publication of these files takes, from this many publications before it.
fn count(before: &[Vec<RenderedFile>], files: &[RenderedFile]) -> i64 {
    let bench = Bench::new();
    publish_all(&bench, before);
    let start = bench.publisher.disk.steps();
    publish(&bench, files).unwrap();
    bench.publisher.disk.steps() - start
}

#[test]
fn cut_off_anywhere_the_host_shows_the_old_or_the_new_whole() {
    let old = || vec![file("one", "old"), file("sub/two", "old")];
    let new = || vec![file("one", "new"), file("sub/two", "new"), file("sub/deep/three", "new")];
    let mut points = 0;
    // The first publication, a change, a change that prunes, and a way back.
    let cases: [Vec<Vec<RenderedFile>>; 4] = [vec![], vec![old()], vec![vec![file("zero", "0")], old()], vec![new(), old()]];
    for before in cases {
        let steps = count(&before, &new());
        assert!(steps >= 3, "only {steps} steps were counted");
        for cut in 0..steps {
            let mut bench = Bench::new();
            publish_all(&bench, &before);
            bench.publisher.disk.cut_after(cut);
            // What comes after the switch is best effort in one place; else the cut is an error.
            let _ = publish(&bench, &new());
            bench.reopen();
            assert_eq!(leftovers(bench.dir.path()), Vec::<PathBuf>::new(), "cut after {cut}");
            match std::fs::read_to_string(Path::new(&bench.mount()).join("one")) {
                Ok(side) => assert_eq!(bench.shown("sub/two"), side, "cut after {cut}"),
                Err(error) => assert!(before.is_empty(), "cut after {cut}: {error}"),
            }
            for id in bench.publisher.list(&bench.web).unwrap() {
                assert_eq!(bench.publisher.verify(&bench.web, id).unwrap(), Vec::<String>::new(), "cut after {cut}");
            }
            let id = publish(&bench, &new()).unwrap();
            assert_eq!((bench.shown("one").as_str(), id.copy), ("new", 0), "cut after {cut}");
            points += 1;
        }
    }
    assert!(points > 60, "only {points} points were tried");
}

#[test]
fn cut_off_while_it_is_withdrawn_it_can_be_withdrawn_again() {
    let withdraw = |bench: &Bench| {
        bench.publisher.withdraw(&bench.web, &bench.mount())?;
        bench.publisher.prune(&bench.web, 0, &[])
    };
    let bench = Bench::new();
    bench.show(&[file("a/b", "1")]);
    let start = bench.publisher.disk.steps();
    withdraw(&bench).unwrap();
    let steps = bench.publisher.disk.steps() - start;
    for cut in 0..steps {
        let mut bench = Bench::new();
        bench.show(&[file("a/b", "1")]);
        bench.publisher.disk.cut_after(cut);
        withdraw(&bench).unwrap_err();
        bench.reopen();
        withdraw(&bench).unwrap();
        assert_eq!(bench.publisher.groups().unwrap(), [], "cut after {cut}");
        assert_eq!(bench.publisher.link_ok(&bench.web, &bench.mount()), LinkState::Missing, "cut after {cut}");
    }
}
