//! Runbooks as HTML and as text.

use super::*;

fn page(name: &str, query: &str) -> String {
    let runbook = Runbook::find(name).unwrap();
    runbook.page(query).into_string()
}

#[test]
fn without_a_query_the_text_is_the_file() {
    for runbook in all() {
        assert_eq!(runbook.plain(""), runbook.text, "{}", runbook.name);
        assert_eq!(runbook.plain("vm=&x=y"), runbook.text, "{}", runbook.name);
    }
}

/// A runbook whose queries name a VM must not name another VM: its name would stay an example.
#[test]
fn every_example_in_a_query_is_replaced() {
    let query = "vm=THE-VM&vcpu=5&instance=the-host%3A1";
    for runbook in all() {
        let text = runbook.plain(query);
        let names = |label: &str| {
            let after = text.split(label).skip(1);
            let values = after.filter_map(|rest| rest.split('"').next());
            values.map(str::to_owned).collect::<Vec<_>>()
        };
        let name = runbook.name;
        assert!(names("vm=\"").iter().all(|vm| vm == "THE-VM"), "{name}");
        assert!(names("vcpu=\"").iter().all(|vcpu| vcpu == "5"), "{name}");
        assert!(!text.contains("HOST:9752"), "{name}");
        let html = runbook.page(query).into_string();
        assert!(
            !html.contains(">HOST:9752") && !html.contains("://HOST:"),
            "{name}"
        );
    }
}

#[test]
fn a_page_is_html_with_anchors_and_the_names_of_the_alert() {
    let html = page("KvmVmMemoryRemote", "vm=db-7&instance=compute-1:9752");
    assert!(html.contains("<title>KvmVmMemoryRemote: db-7 on compute-1 · "));
    assert!(html.contains("<h2 id=\"what-to-look-at\">What to look at</h2>"));
    assert!(html.contains("instance=\"compute-1:9752\",vm=\"db-7\""));
    assert!(html.contains("<pre><code class=\"language-promql\">"));
    let html = page("KvmVmCpuDelayHigh", "vm=db-7&instance=compute-1:9752");
    let link =
        "/runbooks/KvmVcpuStarved?vm=db%2D7&amp;instance=compute%2D1%3A9752&amp;host=compute%2D1";
    assert!(html.contains(&format!("<a href=\"{link}#fix\">")), "{html}");
    let index = page("README", "");
    assert!(
        index.contains("<table>") && !index.contains("](Kvm"),
        "{index}"
    );
}

#[test]
fn query_is_escaped_in_html() {
    let query = "vm=%3Cscript%3Ealert(1)%3C/script%3E&instance=%22%3E%3Cimg+src%3Dx%3E";
    for html in [page("KvmVmMemoryRemote", query), list(query).into_string()] {
        assert!(
            !html.contains("<script") && !html.contains("<img"),
            "{html}"
        );
    }
    let html = page("KvmVmMemoryRemote", query);
    assert!(html.contains("quote the name yourself"), "{html}");
    assert!(html.contains("vm=\"&lt;script&gt;"), "{html}");
    assert!(html.contains("virsh") && !html.contains("virsh numatune &lt;script"));
}

#[test]
fn html_and_foreign_links_of_a_text_are_not_passed_through() {
    let text = "a <b onclick=x>b</b>\n\n<script>c</script>\n\n[d](javascript:e) [f](../F.md)";
    let html = markdown::html(text, None, &Subject::default());
    assert!(!html.contains("<b") && !html.contains("<script"), "{html}");
    assert!(
        !html.contains("<a ") && html.contains('d') && html.contains('f'),
        "{html}"
    );
}

#[test]
fn links_between_runbooks_all_lead_somewhere() {
    for runbook in all() {
        let html = runbook.page("").into_string();
        for target in html.split("href=\"/runbooks/").skip(1) {
            let target = target.split('"').next().unwrap();
            let (name, anchor) = target.split_once('#').unwrap_or((target, ""));
            if name.is_empty() {
                continue;
            }
            let there = Runbook::find(name).unwrap().page("").into_string();
            let has = anchor.is_empty() || there.contains(&format!("id=\"{anchor}\""));
            assert!(has, "{}: {target}", runbook.name);
        }
    }
}

#[test]
fn the_list_says_what_each_is_about() {
    let html = list("vm=a").into_string();
    for runbook in all().filter(|runbook| runbook.name != INDEX) {
        assert!(html.contains(&format!("/runbooks/{}?vm=a\"", runbook.name)));
        let summary = runbook.summary();
        assert!(summary.len() > 20 && summary.len() < 300, "{summary}");
    }
    assert!(!STYLE.contains("</") && !STYLE.contains("url(") && !STYLE.contains("@import"));
}
