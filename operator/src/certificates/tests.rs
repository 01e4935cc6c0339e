#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn names() -> Vec<String> {
    vec!["exeat-operator.exeat-system.svc".to_owned()]
}

const NOW: i64 = 1_800_000_000;

#[test]
fn nothing_is_due_at_first_and_it_survives_the_secret() {
    let state = State::new(NOW, &names()).unwrap();
    assert_eq!(state.due(NOW, &names()), Due::Nothing);
    assert_eq!(State::read(&state.data()), Some(state));
}

#[test]
fn serving_certificates_are_renewed_at_half_life_and_for_other_names() {
    let mut state = State::new(NOW, &names()).unwrap();
    assert_eq!(state.due(NOW + SERVING_LIFE / 2, &names()), Due::Serving);
    let more = [names(), vec!["localhost".to_owned()]].concat();
    assert_eq!(state.due(NOW, &more), Due::Serving);
    let before = state.serving.clone();
    state.step(Due::Serving, NOW, &more).unwrap();
    assert_ne!(state.serving, before);
    assert_eq!(state.due(NOW, &more), Due::Nothing);
}

#[test]
fn a_new_authority_is_trusted_before_it_serves_and_the_old_one_after() {
    let mut state = State::new(NOW, &names()).unwrap();
    let first = state.authority.certificate.clone();
    let mut now = NOW + AUTHORITY_LIFE / 2;
    assert_eq!(state.due(now, &names()), Due::Stage);
    state.step(Due::Stage, now, &names()).unwrap();
    let second = state.next.clone().unwrap().certificate;
    assert!(state.bundle().contains(&first) && state.bundle().contains(&second));
    assert_eq!(state.authority.certificate, first, "still serves");
    state.step(Due::Serving, now, &names()).unwrap();
    assert_eq!(state.due(now + STAGE - 1, &names()), Due::Nothing);
    now += STAGE;
    assert_eq!(state.due(now, &names()), Due::Promote);
    state.step(Due::Promote, now, &names()).unwrap();
    assert_eq!(state.authority.certificate, second);
    assert!(
        state.bundle().contains(&first),
        "replicas may still serve under it"
    );
    assert_eq!(state.due(now, &names()), Due::Nothing);
    now += DAY;
    assert_eq!(state.due(now, &names()), Due::Forget);
    state.step(Due::Forget, now, &names()).unwrap();
    assert!(!state.bundle().contains(&first));
}

#[test]
fn keys_have_no_printable_form() {
    let state = State::new(NOW, &names()).unwrap();
    let text = format!("{:?}", state.authority);
    assert!(!text.contains("PRIVATE"));
    assert!(!text.contains(&state.authority.key));
}

#[test]
fn a_garbled_secret_is_made_anew() {
    let data = BTreeMap::from([("state.json".to_owned(), ByteString(b"{}".to_vec()))]);
    assert!(State::read(&data).is_none());
}
